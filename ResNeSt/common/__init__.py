"""What every room uses: errors and exit codes, whole files, journals, threads, tables, names as ais_bench has them."""
