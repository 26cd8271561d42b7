# What an operator does with a server that runs: accounts, a backup and its restore, reload, health.
# Sourced by run after mistakes.sh, whose functions it shares.

port=$(free_port) admin_port=$(free_port) running=
base=http://127.0.0.1:$port/_matrix

serve() { # NAME: starts the server of this configuration and waits until it answers
    "$build/myelin" --config "$op/$1.yaml" >"$op/$1.log" 2>&1 &
    running=$!
    for _ in $(seq 200); do
        curl -sf -o /dev/null "http://127.0.0.1:$admin_port/health" && return 0
        kill -0 $running 2>/dev/null || break
        sleep 0.05
    done
    cat "$op/$1.log"
    return 1
}

end() { # its exit code
    kill -TERM "$running"
    wait "$running"
}

ctl() { # NAME WORDS...
    local name=$1
    shift
    "$build/myelinctl" --config "$op/$name.yaml" "$@"
}

member() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

sign_in() { # USER PASSWORD: prints a token
    curl -sf "$base/client/v3/login" -d "{\"type\":\"m.login.password\",\"identifier\":{\"type\":\"m.id.user\",\"user\":\"$1\"},\"password\":\"$2\"}" | member access_token
}

as() { # TOKEN PATH CURL_OPTIONS...
    local token=$1 path=$2
    shift 2
    curl -sf -H "Authorization: Bearer $token" "$base/$path" "$@"
}

key_id() { curl -sf "$base/key/v2/server" | python3 -c 'import json, sys; print(list(json.load(sys.stdin)["verify_keys"])[0])'; }

fill() { # a room with a message, and a file
    token=$(sign_in ann "$password") || return 1
    room=$(as "$token" client/v3/createRoom -d '{"name":"Archive"}' | member room_id)
    as "$token" "client/v3/rooms/$room/send/m.room.message/1" -X PUT -d '{"msgtype":"m.text","body":"worth a backup"}' >"$op/sent"
    as "$token" media/v3/upload -H 'Content-Type: text/plain' --data-binary 'a file worth a backup' | member content_uri >"$op/mxc"
    [ -s "$op/mxc" ] && [ -s "$op/sent" ]
}

restored_is_whole() {
    local fresh mxc
    fresh=$(sign_in ann "$password") || return 1
    as "$token" client/v3/account/whoami >/dev/null || return 1 # the old token counts on
    as "$fresh" "client/v3/rooms/$room/messages?dir=b&limit=5" | grep -q 'worth a backup' || return 1
    ! as "$fresh" "client/v3/rooms/$room/messages?dir=b&limit=5" | grep -q 'after the backup' || return 1
    mxc=$(cat "$op/mxc")
    as "$fresh" "client/v1/media/download/${mxc#mxc://}" | grep -q 'a file worth a backup' || return 1
    [ "$(key_id)" = "$key" ]
}

try_backup() {
    data_dir=live configure live "listen: [{host: 127.0.0.1, port: $port}]" "admin: {port: $admin_port}"
    data_dir=back configure back "listen: [{host: 127.0.0.1, port: $port}]" "admin: {port: $admin_port}"
    expect "the server runs" serve live
    password=$(ctl live --json users create ann --admin | member password)
    expect "an account made beside the running server" fill
    key=$(key_id)
    expect "a backup while the server runs" ctl live backup "$op/back"
    as "$token" "client/v3/rooms/$room/send/m.room.message/2" -X PUT -d '{"msgtype":"m.text","body":"after the backup"}' >/dev/null
    expect "a folder that is there is not written to" prints "cannot be made: File exists" ctl live backup "$op/back"
    expect "a registration token" prints "uses_allowed: 2" ctl live registration-tokens create --uses 2
    expect "a password given by the operator" prints "password: " ctl live users reset-password ann --keep-devices
    expect "metrics" prints "myelin_http_requests_total" curl -s "http://127.0.0.1:$admin_port/metrics"
    expect "the running server refuses check" prints "stop it first" ctl live check
    kill -HUP "$running"
    expect "it stops with exit code 0" end
    expect "it told of the reload" grep -q event=reloaded "$op/live.log"
    expect "the copy is whole" exits_with 0 ctl back check --deep
    expect "the copy serves" serve back
    expect "accounts, rooms, files and the key are those of the backup" restored_is_whole
    expect "it stops too" end
    expect "a backup of a server that does not run" ctl live backup "$op/cold"
    rm -f "$op/cold/store/store"
    data_dir=cold configure cold "$plain"
    expect "half a backup is refused" refused cold "holds other files and no store"
    [ "$(id -u)" = 0 ] && mkdir "$op/small" || return
    mount -t tmpfs -o size=16k none "$op/small" 2>/dev/null || return
    expect "a backup to a full disk" prints "No space left on device" ctl live backup "$op/small/copy"
    umount "$op/small"
}

full_disk_is_told_of() { # reading goes on; the log says that writing does not
    local i
    token=$(sign_in ann "$password")
    dd if=/dev/zero of="$op/disk/rest" bs=1k count=20000 2>/dev/null
    for i in $(seq 200); do
        as "$token" "client/v3/user/@ann:mistakes.example/account_data/a.$i" -X PUT -d '{"a":1}' || break
    done >/dev/null
    curl -sf "$base/client/versions" >/dev/null || { echo "it does not answer any more"; return 1; }
    [ "$(curl -s -o "$op/health" -w '%{http_code}' "http://127.0.0.1:$admin_port/health")" = 503 ] || { cat "$op/health"; return 1; }
    grep -q event=store_stopped "$op/disk.log" || { echo "the log does not tell"; return 1; }
    sleep 3
    [ "$(grep -c . "$op/disk.log")" -lt 100 ] || { echo "the log is flooded"; tail -n 5 "$op/disk.log"; return 1; }
}

try_full_disk() {
    [ "$(id -u)" = 0 ] && mkdir "$op/disk" || return
    mount -t tmpfs -o size=6m none "$op/disk" 2>/dev/null || return
    data_dir=disk/data configure disk "listen: [{host: 127.0.0.1, port: $port}]" "admin: {port: $admin_port}"
    expect "a server on a small disk" serve disk
    password=$(ctl disk --json users create ann | member password)
    expect "a disk that fills while it serves is told of" full_disk_is_told_of
    expect "and it stops in order" end
    umount "$op/disk"
}

try_backup
try_full_disk
