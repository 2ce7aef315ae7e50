FROM busybox
RUN mkdir /mine && chown nobody /mine
USER nobody
WORKDIR /mine
RUN id -u >/mine/id
