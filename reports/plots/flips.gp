# flips.gp - items that a model lost (left) and won (right) against the base, by how sure the base was of its answer.
#   gnuplot -e "data='data/flips.tsv'; out='plots/flips.svg'" flips.gp
# sure: the base's top two answers lay more than 1 nat apart; tie: less than .1
# data: y, label, lost sure, lost between, lost tie, won sure, won between, won tie (% of the items)
set datafile separator tab
stats data using 1 skip 1 nooutput
rows = STATS_records
stats data using ($3 + $4 + $5) skip 1 nooutput
left = STATS_max
stats data using ($6 + $7 + $8) skip 1 nooutput
right = STATS_max
reach = 1.12 * (left > right ? left : right) + .02
set terminal svg size 860,(110 + 26 * rows) dynamic font "sans-serif,13" background "#ffffff" name "flips"
set output out
set border 1 linecolor rgb "#7b8794"
set tics textcolor rgb "#1f2933"
set xlabel "<- right became wrong      share of the items, %      wrong became right ->" textcolor rgb "#1f2933"
set xtics nomirror out
set ytics nomirror scale 0 noenhanced
set format x "%g"
set grid xtics linecolor rgb "#d9dee4" linetype 1
set key outside top horizontal center textcolor rgb "#1f2933" samplen 1 maxcols 3
set xrange [-reach : reach]
set yrange [-.7 : rows - .3]
set style fill solid noborder
set arrow 1 from 0, graph 0 to 0, graph 1 nohead linecolor rgb "#7b8794" front
h = .32
plot data using (0):1:(-$3):(0):($1 - h):($1 + h):ytic(2) skip 1 with boxxyerror linecolor rgb "#c2410c" title "lost, base sure", \
     data using (0):1:(-$3 - $4):(-$3):($1 - h):($1 + h) skip 1 with boxxyerror linecolor rgb "#fbbfa0" title "lost", \
     data using (0):1:(-$3 - $4 - $5):(-$3 - $4):($1 - h):($1 + h) skip 1 with boxxyerror linecolor rgb "#d9dee4" title "tie", \
     data using (0):1:(0):6:($1 - h):($1 + h) skip 1 with boxxyerror linecolor rgb "#0b7a4b" title "won, base sure", \
     data using (0):1:6:($6 + $7):($1 - h):($1 + h) skip 1 with boxxyerror linecolor rgb "#a0dcbe" title "won", \
     data using (0):1:($6 + $7):($6 + $7 + $8):($1 - h):($1 + h) skip 1 with boxxyerror linecolor rgb "#d9dee4" notitle
