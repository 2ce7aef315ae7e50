FROM busybox
RUN true
RUN test -e /etc/passwd
CMD ["x"]
