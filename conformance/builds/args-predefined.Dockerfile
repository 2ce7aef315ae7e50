FROM busybox
RUN echo "$HTTP_PROXY $no_proxy" >/proxies
ARG HTTP_PROXY
RUN echo "$HTTP_PROXY" >/again
# flags: --build-arg HTTP_PROXY=http://proxy --build-arg no_proxy=a,b
