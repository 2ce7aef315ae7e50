# escape=`
FROM busybox
ENV A=a`
 b
RUN echo \x`
 y >/f
