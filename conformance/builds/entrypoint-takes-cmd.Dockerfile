FROM busybox AS one
ENTRYPOINT run me
FROM busybox
CMD ["mine"]
ENTRYPOINT ["e"]
SHELL ["/bin/sh", "-e", "-c"]
CMD after shell
