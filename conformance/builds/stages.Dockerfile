FROM busybox AS Build
RUN echo made >/made && mkdir /tree && echo leaf >/tree/leaf && chown -R 7:8 /tree && chmod 640 /tree/leaf
FROM busybox AS other
COPY --from=build /made /m
FROM busybox
COPY --from=0 /tree /tree
COPY --from=1 /m /made
COPY --from=build --chown=1:1 /tree/leaf /leaf
COPY --from=busybox /etc/passwd /p
