FROM busybox
COPY --from=later /etc/passwd /p
FROM busybox AS later
