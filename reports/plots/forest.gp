# forest.gp - delta to the base by task and model, with 95 % intervals.
#   gnuplot -e "data='data/forest.tsv'; out='plots/forest.svg'" forest.gp
# data: y, label, delta, lo, hi (points), verdict (0 better, 1 worse, 2 equivalent, 3 cannot tell), margin (points)
set datafile separator tab
stats data using 1 skip 1 nooutput
rows = STATS_records
stats data using 4 skip 1 nooutput
left = STATS_min
stats data using 5 skip 1 nooutput
right = STATS_max
stats data using 7 skip 1 nooutput
margin = STATS_max
left = (left < -1.5 * margin ? left : -1.5 * margin)
right = (right > 1.5 * margin ? right : 1.5 * margin)
pad = .06 * (right - left)
set terminal svg size 860,(110 + 26 * rows) dynamic font "sans-serif,13" background "#ffffff" name "forest"
set output out
set border 1 linecolor rgb "#7b8794"
set tics textcolor rgb "#1f2933"
set xlabel "delta to the base, points" textcolor rgb "#1f2933"
set xtics nomirror out
set ytics nomirror scale 0 noenhanced
set grid xtics linecolor rgb "#d9dee4" linetype 1
set key outside top horizontal center textcolor rgb "#1f2933" samplen .5 width 1
set xrange [left - pad : right + pad]
set yrange [-.7 : rows - .3]
set style rectangle fillstyle solid noborder
set object 1 rectangle from -margin, graph 0 to margin, graph 1 fillcolor rgb "#e8f0fa" behind
set arrow 1 from 0, graph 0 to 0, graph 1 nohead linecolor rgb "#7b8794" linewidth 1 back
at(k, x) = (int(column(6)) == k ? x : NaN)
plot data using (at(0, $3)):1:4:5:ytic(2) skip 1 with xerrorbars pointtype 9 pointsize 1.1 linewidth 2 linecolor rgb "#0b7a4b" notitle, \
     data using (at(1, $3)):1:4:5 skip 1 with xerrorbars pointtype 11 pointsize 1.1 linewidth 2 linecolor rgb "#c2410c" notitle, \
     data using (at(2, $3)):1:4:5 skip 1 with xerrorbars pointtype 5 pointsize .8 linewidth 2 linecolor rgb "#2563a8" notitle, \
     data using (at(3, $3)):1:4:5 skip 1 with xerrorbars pointtype 6 pointsize .9 linewidth 2 linecolor rgb "#6b7280" notitle, \
     keyentry with points pointtype 9 pointsize 1.1 linecolor rgb "#0b7a4b" title "better", \
     keyentry with points pointtype 11 pointsize 1.1 linecolor rgb "#c2410c" title "worse", \
     keyentry with points pointtype 5 pointsize .8 linecolor rgb "#2563a8" title "equivalent", \
     keyentry with points pointtype 6 pointsize .9 linecolor rgb "#6b7280" title "cannot tell"
