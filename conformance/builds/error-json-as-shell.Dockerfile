FROM busybox
RUN ['echo', 'one']
