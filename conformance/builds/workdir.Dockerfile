FROM busybox
WORKDIR /a/b
WORKDIR c
WORKDIR /a/b/../d
ENV D=/e
WORKDIR $D/f
RUN pwd >/where
