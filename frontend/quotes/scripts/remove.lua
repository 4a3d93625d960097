-- ARGV: name
drop(ARGV[1])
