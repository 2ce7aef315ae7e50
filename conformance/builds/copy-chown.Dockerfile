FROM busybox
COPY --chown=nobody:nogroup dir /dir
COPY --chown=12:34 a.txt /new/folder/
COPY --chown=5 run.sh /run.sh
