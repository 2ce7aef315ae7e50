FROM busybox
COPY *.nothing /x/
# says: no source files were specified
