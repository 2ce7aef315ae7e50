FROM busybox
EXPOSE http
# says: nvalid containerPort: http
