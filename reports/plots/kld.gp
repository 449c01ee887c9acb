# kld.gp - distribution of KL divergence to the reference over tokens: line 1 % to 99 %, bar 10 % to 90 %, circle median,
# diamond mean.
#   gnuplot -e "data='data/kld.tsv'; out='plots/kld.svg'" kld.gp
# data: y, label, p1, p10, p50, p90, p99, mean (nats)
set datafile separator tab
stats data using 1 skip 1 nooutput
rows = STATS_records
above(x) = (x > 1e-7 ? x : 1e-7)
set terminal svg size 860,(100 + 34 * rows) dynamic font "sans-serif,13" background "#ffffff" name "kld"
set output out
set border 1 linecolor rgb "#7b8794"
set tics textcolor rgb "#1f2933"
set logscale x
set format x "%g"
set xlabel "KL divergence, nats a token (log scale)" textcolor rgb "#1f2933"
set xtics nomirror out
set ytics nomirror scale 0 noenhanced
set grid xtics linecolor rgb "#d9dee4" linetype 1
unset key
set yrange [-.7 : rows - .3]
set style fill solid noborder
h = .16
plot data using (above($5)):1:(above($3)):(above($7)):ytic(2) skip 1 with xerrorbars pointtype 0 linewidth 2 linecolor rgb "#2563a8", \
     data using (above($5)):1:(above($4)):(above($6)):($1 - h):($1 + h) skip 1 with boxxyerror linecolor rgb "#2563a8", \
     data using (above($5)):1 skip 1 with points pointtype 7 pointsize .9 linecolor rgb "#ffffff", \
     data using (above($8)):1 skip 1 with points pointtype 13 pointsize 1.4 linecolor rgb "#1f2933"
