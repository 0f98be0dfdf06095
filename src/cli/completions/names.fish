
# Names of backends, as POOL/NAME, asked from the running process; none without one.
function __sessile_backends
    set -l words (commandline -opc)
    set -l at
    for i in (seq (count $words))
        switch $words[$i]
            case --socket --config -c
                set at $words[$i] $words[(math $i + 1)]
        end
    end
    command sessile status --names $at 2>/dev/null
end

complete -c sessile -n '__fish_seen_subcommand_from drain ready close' -f -a '(__sessile_backends)'
complete -c sessile -n '__fish_seen_subcommand_from remove weight address' -f -a '(__sessile_backends)'
complete -c sessile -n '__fish_seen_subcommand_from explain' -l down -x -a '(__sessile_backends)'
complete -c sessile -n '__fish_seen_subcommand_from plan' -l without -x -a '(__sessile_backends)'
