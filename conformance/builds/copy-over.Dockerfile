FROM busybox
RUN mkdir -p /o/x /o/sub && echo old >/o/y && echo kept >/o/kept
COPY dir/y /o/y
RUN rm -r /o/x && mkdir -p /p && ln -s /o /p/link
COPY dir /p/link
COPY a.txt /p/link/deep/
