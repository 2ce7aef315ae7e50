FROM busybox
ENV A=1 B="two words" C=a\ b
ENV D the rest of $A
ENV E=${A:-x} F=${N:-dflt} G=${A:+set} H='$A' I=\$A
ENV A=2 J=$A
ENV PATH=$PATH:/opt
