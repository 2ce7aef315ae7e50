FROM busybox
COPY link /one
COPY link /two/
COPY dirlink /three
COPY dir/sub /four/
