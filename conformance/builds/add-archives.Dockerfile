FROM busybox
ADD archive.tar /one
ADD archive.tar.gz /two/
ADD a.txt /three/
COPY archive.tar /four/
