FROM busybox AS b
FROM scratch
COPY --from=b / /
CMD ["sh"]
