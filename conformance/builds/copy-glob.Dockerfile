FROM busybox
COPY *.txt d?r/* /g/
COPY dir/[xy] /h/
