// The compiled terminfo entry below, in the form that ncurses takes from $TERMINFO. To change it: edit the source, run
//   tic -x -o DIR FILE && infocmp -A DIR -x -q -Q2 quarterdeck-direct
//
//   quarterdeck-direct|terminals with direct colour by semicolons,
//       am, km, mir, msgr, xenl, AX, XT, RGB,
//       colors#0x1000000, cols#80, it#8, lines#24, pairs#0x10000,
//       acsc=``aaffggiijjkkllmmnnooppqqrrssttuuvvwwxxyyzz{{||}}~~,
//       bel=^G, blink=\E[5m, bold=\E[1m, cbt=\E[Z, civis=\E[?25l,
//       clear=\E[H\E[2J, cnorm=\E[?25h, cr=\r,
//       csr=\E[%i%p1%d;%p2%dr, cub=\E[%p1%dD, cub1=^H,
//       cud=\E[%p1%dB, cud1=\n, cuf=\E[%p1%dC, cuf1=\E[C,
//       cup=\E[%i%p1%d;%p2%dH, cuu=\E[%p1%dA, cuu1=\E[A,
//       dch=\E[%p1%dP, dch1=\E[P, dim=\E[2m,
//       dl=\E[%p1%dM, dl1=\E[M, ech=\E[%p1%dX, ed=\E[J, el=\E[K,
//       el1=\E[1K, home=\E[H, hpa=\E[%i%p1%dG, ht=^I,
//       ich=\E[%p1%d@, il=\E[%p1%dL, il1=\E[L, ind=\n,
//       kbs=^?, kcbt=\E[Z, kcub1=\EOD, kcud1=\EOB, kcuf1=\EOC, kcuu1=\EOA,
//       kdch1=\E[3~, kend=\EOF, kf1=\EOP, kf2=\EOQ, kf3=\EOR, kf4=\EOS, kf5=\E[15~,
//       kf6=\E[17~, kf7=\E[18~, kf8=\E[19~, kf9=\E[20~, kf10=\E[21~,
//       kf11=\E[23~, kf12=\E[24~, khome=\EOH, kich1=\E[2~, knp=\E[6~, kpp=\E[5~,
//       op=\E[39;49m, rc=\E8, rev=\E[7m, ri=\EM, ritm=\E[23m, rmacs=\E(B,
//       rmcup=\E[?1049l, rmir=\E[4l, rmkx=\E[?1l\E>, rmso=\E[27m, rmul=\E[24m, sc=\E7,
//       setab=\E[48;2;%p1%{65536}%/%d;%p1%{256}%/%{255}%&%d;%p1%{255}%&%dm,
//       setaf=\E[38;2;%p1%{65536}%/%d;%p1%{256}%/%{255}%&%d;%p1%{255}%&%dm,
//       sgr=\E(%?%p9%t0%eB%;\E[0%?%p6%t;1%;%?%p5%t;2%;%?%p2%t;4%;%?%p1%p3%|%t;7%;%?%p4%t;5%;%?%p7%t;8%;m,
//       sgr0=\E(B\E[m, sitm=\E[3m, smacs=\E(0, smcup=\E[?1049h, smir=\E[4h, smkx=\E[?1h\E=,
//       smso=\E[7m, smul=\E[4m, vpa=\E[%i%p1%dd,
#pragma once

static const char direct_terminfo[] =
    "b64:HgI-AA8ADwBpAdACcXVhcnRlcmRlY2stZGlyZWN0fHRlcm1pbmFscyB3aXRoIGRpcmVjdCBjb2xvdXIgYnkgc2VtaWNvbG9ucwAAAQAAAQAAAAEAAAAA"
    "AQEAUAAAAAgAAAAYAAAA_____________________________________________________wAAAAEAAAEAAAAEAAYACAD__xkAIQAlACkA__80AEUARwBL"
    "AFIA__9UAFsA__9fAP__YwBnAP____9rAG8AdAB5AP__ggCHAP____-MAJEAlgCbAKQAqACvAP__uAC9AMMA_____________________8kA___NAP______"
    "_88A___UAP__________2ADcAOIA5gDqAO4A9AD6AAABBgEMARAB__8VAf__GQEeASMB________JwErATMB____________________________________"
    "____OwFEAU0BVgH__18BaAFxAf__egH_____________________________gwGGAZEBlAGWAZkB______QB______________________________YB__8r"
    "Av_______________________________________y8C____________________________________________________________________________"
    "____________________________________________________________MwI5Av______________________________________________________"
    "_________________________________________________________________________________z8C____________________________________"
    "____________________________________RAL__________________________________00C________________________UgL_________________"
    "_________________________________________________________________________________1gClAIbW1oABwANABtbJWklcDElZDslcDIlZHIA"
    "G1tIG1sySgAbW0sAG1tKABtbJWklcDElZEcAG1slaSVwMSVkOyVwMiVkSAAKABtbSAAbWz8yNWwACAAbWz8yNWgAG1tDABtbQQAbW1AAG1tNABsoMAAbWzVt"
    "ABtbMW0AG1s_MTA0OWgAG1sybQAbWzRoABtbN20AG1s3bQAbWzRtABtbJXAxJWRYABsoQgAbKEIbW20AG1s_MTA0OWwAG1s0bAAbWzI3bQAbWzI0bQAbW0wA"
    "fwAbWzN-ABtPQgAbT1AAG1syMX4AG09RABtPUgAbT1MAG1sxNX4AG1sxN34AG1sxOH4AG1sxOX4AG1syMH4AG09IABtbMn4AG09EABtbNn4AG1s1fgAbT0MA"
    "G09BABtbPzFsGz4AG1s_MWgbPQAbWyVwMSVkUAAbWyVwMSVkTQAbWyVwMSVkQgAbWyVwMSVkQAAbWyVwMSVkTAAbWyVwMSVkRAAbWyVwMSVkQwAbWyVwMSVk"
    "QQAbOAAbWyVpJXAxJWRkABs3AAoAG00AGyglPyVwOSV0MCVlQiU7G1swJT8lcDYldDsxJTslPyVwNSV0OzIlOyU_JXAyJXQ7NCU7JT8lcDElcDMlfCV0Ozcl"
    "OyU_JXA0JXQ7NSU7JT8lcDcldDs4JTttAAkAYGBhYWZmZ2dpaWpqa2tsbG1tbm5vb3BwcXFycnNzdHR1dXZ2d3d4eHl5enp7e3x8fX1-fgAbW1oAG09GABtb"
    "MjN-ABtbMjR-ABtbMUsAG1szOTs0OW0AG1szbQAbWzIzbQAbWzM4OzI7JXAxJXs2NTUzNn0lLyVkOyVwMSV7MjU2fSUvJXsyNTV9JSYlZDslcDElezI1NX0l"
    "JiVkbQAbWzQ4OzI7JXAxJXs2NTUzNn0lLyVkOyVwMSV7MjU2fSUvJXsyNTV9JSYlZDslcDElezI1NX0lJiVkbQADAAAAAAADAAoAAQEBAAAAAwAHAEFYAFJH"
    "QgBYVAA=";
