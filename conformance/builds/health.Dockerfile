FROM busybox
HEALTHCHECK --interval=5s --timeout=3s --start-period=1m --retries=4 CMD wget -q x || exit 1
RUN true
