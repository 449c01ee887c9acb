# history.gp - score of one label on one task from run to run, with 95 % Wilson intervals.
#   gnuplot -e "data='data/history-mmlu-nightly.tsv'; out='plots/history-mmlu-nightly.svg'" history.gp
# data: number, date or tag, score, lo, hi (%), run
set datafile separator tab
stats data using 1 skip 1 nooutput
rows = STATS_records
stats data using 4 skip 1 nooutput
low = STATS_min
stats data using 5 skip 1 nooutput
high = STATS_max
pad = .1 * (high - low) + .1
set terminal svg size 860,340 dynamic font "sans-serif,13" background "#ffffff" name "history"
set output out
set border 3 linecolor rgb "#7b8794"
set tics textcolor rgb "#1f2933" nomirror out
set xtics rotate by -35 noenhanced
set grid ytics linecolor rgb "#d9dee4" linetype 1
set ylabel "score, %" textcolor rgb "#1f2933"
set xrange [.5 : rows + .5]
set yrange [low - pad : high + pad]
unset key
plot data using 1:4:5 skip 1 with filledcurves fillcolor rgb "#e8f0fa" fillstyle solid noborder, \
     data using 1:3:xtic(2) skip 1 with linespoints pointtype 7 pointsize .8 linewidth 2 linecolor rgb "#2563a8"
