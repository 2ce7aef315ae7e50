FROM busybox
RUN echo so far; exit 3
# says: The command '/bin/sh -c echo so far; exit 3' returned a non-zero code: 3
