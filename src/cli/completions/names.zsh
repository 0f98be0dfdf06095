# Names of backends, as POOL/NAME, asked from the running process; none without one.
_sessile_backends() {
    local -a at names
    local i
    for ((i = 1; i < CURRENT - 1; i++)); do
        case $words[i] in
            --socket|--config|-c) at=($words[i] $words[i+1]) ;;
        esac
    done
    names=(${(f)"$(command sessile status --names $at 2>/dev/null)"})
    compadd -a names
}
