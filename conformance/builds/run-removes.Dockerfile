FROM busybox
RUN mkdir /d && echo 1 >/d/one && echo 2 >/d/two && mkdir /e && echo x >/e/x && echo y >/y
RUN rm /d/one /y && rm -r /e && mkdir /e && echo new >/e/new
RUN rm -r /d && echo file >/d && rm /e/new
