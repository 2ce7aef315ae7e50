FROM busybox AS a
FROM busybox
COPY --from=a /nothing /x
# says: COPY failed: stat nothing: file does not exist
