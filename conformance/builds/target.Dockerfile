FROM busybox AS one
RUN echo one >/f
FROM busybox AS two
RUN exit 1
# flags: --target ONE
