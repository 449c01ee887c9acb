# subjects.gp - delta to the base by subject, with 95 % intervals; filled: Benjamini-Hochberg p below .05.
#   gnuplot -e "data='data/subjects-mmlu-q4_0.tsv'; out='plots/subjects-mmlu-q4_0.svg'" subjects.gp
# data: y, label, delta, lo, hi (points), items, p, adjusted p
set datafile separator tab
stats data using 1 skip 1 nooutput
rows = STATS_records
stats data using 4 skip 1 nooutput
left = STATS_min
stats data using 5 skip 1 nooutput
right = STATS_max
pad = .04 * (right - left) + .2
set terminal svg size 860,(90 + 17 * rows) dynamic font "sans-serif,12" background "#ffffff" name "subjects"
set output out
set border 1 linecolor rgb "#7b8794"
set tics textcolor rgb "#1f2933"
set xlabel "delta to the base, points" textcolor rgb "#1f2933"
set xtics nomirror out
set ytics nomirror scale 0 noenhanced
set grid xtics linecolor rgb "#d9dee4" linetype 1
unset key
set xrange [left - pad : right + pad]
set yrange [-.7 : rows - .3]
set arrow 1 from 0, graph 0 to 0, graph 1 nohead linecolor rgb "#7b8794" back
pick(yes, x) = (yes ? x : NaN)
plot data using 3:1:4:5:ytic(2) skip 1 with xerrorbars pointtype 0 linewidth 1.5 linecolor rgb "#7b8794", \
     data using (pick(!($8 < .05), $3)):1 skip 1 with points pointtype 6 pointsize .7 linewidth 1.5 linecolor rgb "#6b7280", \
     data using (pick($8 < .05 && $3 < 0, $3)):1 skip 1 with points pointtype 11 pointsize 1 linecolor rgb "#c2410c", \
     data using (pick($8 < .05 && $3 > 0, $3)):1 skip 1 with points pointtype 9 pointsize 1 linecolor rgb "#0b7a4b"
