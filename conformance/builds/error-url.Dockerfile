FROM busybox
COPY http://127.0.0.1:1/x /x
# says: source can't be a URL for COPY
