# size.gp - score against file size; error bars are paired: base score plus the 95 % interval of the delta.
#   gnuplot -e "data='data/size-mmlu.tsv'; out='plots/size-mmlu.svg'" size.gp
# data: label, size (see power), score, lo, hi (%), kind (0 better, 1 worse, 2 equivalent, 3 cannot tell, 4 the base),
#       place of the label (side + 3 level; side 1 right, -1 left; level 1 above, -1 below), power (9: sizes are in GB, 6: MB, 3: kB)
set datafile separator tab
set terminal svg size 860,420 dynamic font "sans-serif,13" background "#ffffff" name "size"
set output out
stats data using 2 skip 1 nooutput
widest = STATS_max
stats data using ($6 == 4 ? $3 : NaN) skip 1 nooutput
base = STATS_max
stats data using 4 skip 1 nooutput
low = STATS_min
stats data using 5 skip 1 nooutput
high = STATS_max
stats data using 8 skip 1 nooutput
power = int(STATS_max)
pad = .12 * (high - low) + .1
set border 3 linecolor rgb "#7b8794"
set tics textcolor rgb "#1f2933" nomirror out
set grid ytics linecolor rgb "#d9dee4" linetype 1
set xlabel (power == 9 ? "file size, GB" : power == 6 ? "file size, MB" : "file size, kB") textcolor rgb "#1f2933"
set ylabel "score, %" textcolor rgb "#1f2933"
set xrange [0 : 1.22 * widest]
set yrange [low - pad : high + pad]
set key outside top horizontal center textcolor rgb "#1f2933" samplen .5 width 1
set arrow 1 from graph 0, first base to graph 1, first base nohead dashtype 2 linecolor rgb "#7b8794" back
at(k, x) = (int(column(6)) == k ? x : NaN)
place(k, x) = (int(column(7)) == k ? x : NaN)
plot data using (at(4, $2)):3 skip 1 with points pointtype 13 pointsize 1.6 linecolor rgb "#1f2933" title "base", \
     data using (at(0, $2)):3:4:5 skip 1 with yerrorbars pointtype 9 pointsize 1.1 linewidth 2 linecolor rgb "#0b7a4b" notitle, \
     data using (at(1, $2)):3:4:5 skip 1 with yerrorbars pointtype 11 pointsize 1.1 linewidth 2 linecolor rgb "#c2410c" notitle, \
     data using (at(2, $2)):3:4:5 skip 1 with yerrorbars pointtype 5 pointsize .8 linewidth 2 linecolor rgb "#2563a8" notitle, \
     data using (at(3, $2)):3:4:5 skip 1 with yerrorbars pointtype 6 pointsize .9 linewidth 2 linecolor rgb "#6b7280" notitle, \
     data using (place(4, $2)):3:1 skip 1 with labels left offset 1.6,0.6 textcolor rgb "#1f2933" noenhanced notitle, \
     data using (place(2, $2)):3:1 skip 1 with labels right offset -1.6,0.6 textcolor rgb "#1f2933" noenhanced notitle, \
     data using (place(-2, $2)):3:1 skip 1 with labels left offset 1.6,-0.7 textcolor rgb "#1f2933" noenhanced notitle, \
     data using (place(-4, $2)):3:1 skip 1 with labels right offset -1.6,-0.7 textcolor rgb "#1f2933" noenhanced notitle, \
     keyentry with points pointtype 9 pointsize 1.1 linecolor rgb "#0b7a4b" title "better", \
     keyentry with points pointtype 11 pointsize 1.1 linecolor rgb "#c2410c" title "worse", \
     keyentry with points pointtype 5 pointsize .8 linecolor rgb "#2563a8" title "equivalent", \
     keyentry with points pointtype 6 pointsize .9 linecolor rgb "#6b7280" title "cannot tell"
