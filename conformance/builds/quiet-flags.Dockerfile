FROM busybox
RUN echo hello >/f
# flags: --quiet --force-rm
