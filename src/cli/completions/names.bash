
# Names of backends, as POOL/NAME, asked from the running process; none without one.
_sessile_backends() {
    local at=() i
    for ((i = 1; i < COMP_CWORD - 1; i++)); do
        case "${COMP_WORDS[i]}" in
            --socket | --config | -c) at=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}") ;;
        esac
    done
    command "$1" status --names "${at[@]}" 2>/dev/null
}

_sessile_with_names() {
    case "${COMP_WORDS[1]},$3" in
        *,--socket | *,--config | *,-c) ;;
        drain,* | ready,* | close,* | backend,remove | backend,weight | backend,address | explain,--down | plan,--without)
            if [[ $2 != -* ]]; then
                # Not by compgen -W, which expands words, and these come out of a socket.
                local name
                COMPREPLY=()
                while IFS= read -r name; do
                    [[ $name == "$2"* ]] && COMPREPLY+=("$name")
                done < <(_sessile_backends "$1")
                return 0
            fi
            ;;
    esac
    _sessile "$@"
}

if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _sessile_with_names -o nosort -o bashdefault -o default sessile
else
    complete -F _sessile_with_names -o bashdefault -o default sessile
fi
