FROM busybox
COPY nothing /x
# says: COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist
