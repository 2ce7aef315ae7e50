FROM busybox
COPY run.sh setuid secret /m/
