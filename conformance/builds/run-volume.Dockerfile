FROM busybox
RUN mkdir /v && echo before >/v/f
VOLUME /v
RUN echo lost >/v/g; echo kept >/k
