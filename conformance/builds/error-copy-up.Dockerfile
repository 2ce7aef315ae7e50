FROM busybox
COPY ../a.txt /a
# says: forbidden path outside the build context: ../a.txt ()
