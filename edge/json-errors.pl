# Puts answers in JSON in the place of HAProxy's own pages: perl json-errors.pl /path/to/haproxy
#
# HAProxy answers what it cannot parse, and a head that does not arrive, with pages that are part of
# the program; before 3.2.4 it does so whatever `http-error` says (its issue 3032). Each page is written
# over with an answer of the same length.
use strict;
use warnings;

my ($path) = @ARGV;
open my $file, '+<:raw', $path or die "$path: $!\n";
my $program = do { local $/; <$file> };

my $pages = 0;
while ($program =~ m{
    (HTTP/1\.[01]\ ([45]\d\d)\ ([^\r\n]+)\r\n) (?:[A-Za-z-]+:\ [^\r\n]+\r\n)* Content-Type:\ text/html\r\n
    (?:[A-Za-z-]+:\ [^\r\n]+\r\n)* \r\n <html>[^\0]*</html>\n
}gx) {
    my ($start, $line, $code, $reason, $length) = ($-[0], $1, $2, $3, $+[0] - $-[0]);
    my $json = qq({"error":{"code":$code,"message":"\L$reason\E"}});
    my $retry = $code == 503 ? "Retry-After: 1\r\n" : '';
    my $head = "${line}Content-Type: application/json\r\nCache-Control: no-store\r\n${retry}Connection: close\r\n";
    # Blanks, which JSON allows, fill up what is left.
    my $room = $length - length("${head}Content-Length: \r\n\r\n");
    $room -= $room > 101 ? 3 : 2;  # the digits of the length itself
    my $blanks = $room - length("$json\n");
    die "no room for the answer $code in $path\n" if $blanks < 0;
    my $answer = "${head}Content-Length: $room\r\n\r\n$json" . ' ' x $blanks . "\n";
    die "the answer $code has another length than the page\n" if length($answer) != $length;
    substr($program, $start, $length) = $answer;
    $pages++;
}
die "$path has no pages for errors\n" if !$pages;
seek $file, 0, 0;
print $file $program;
close $file or die "$path: $!\n";
