FROM busybox
RUN mkdir -p /from/sub && echo f >/from/sub/f
RUN mv /from /to && chmod 700 /to/sub
