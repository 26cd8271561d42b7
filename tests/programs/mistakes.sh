# What an operator may get wrong: each is one message that names the thing, and exit code 1. Sourced
# by run, whose `expect` counts.

op=$work/operator
mkdir -p "$op"

configure() { # NAME LINES...: a configuration with a folder and ports of its own
    local name=$1
    shift
    printf '%s\n' "server_name: ${server_name:-mistakes.example}" "data_dir: $op/${data_dir:-data}" "$@" >"$op/$name.yaml"
}

plain='listen: [{host: 127.0.0.1, port: 0}]'
secure='listen: [{host: 127.0.0.1, port: 0, tls: true}]'

# refused NAME TEXT [COMMAND...]: the server does not start with this configuration, and says so
refused() {
    local name=$1 text=$2
    shift 2
    timeout 20 "$@" "$build/myelin" --config "$op/$name.yaml" >"$work/said" 2>&1
    [ $? = 1 ] || { echo "the exit code is not 1"; cat "$work/said"; return 1; }
    grep -qF -- "$text" "$work/said" || { echo "it does not say: $text"; cat "$work/said"; return 1; }
    [ "$(grep -cE ' error event=|^myelin: ' "$work/said")" = 1 ] || { echo "not one message:"; cat "$work/said"; return 1; }
}

# serves_with NAME [TEXT] [COMMAND...]: the server runs, says TEXT, and stops with exit code 0
serves_with() {
    local name=$1 text=${2:-event=listening} running
    shift $(($# > 1 ? 2 : 1))
    "$@" "$build/myelin" --config "$op/$name.yaml" >"$work/said" 2>&1 &
    running=$!
    for _ in $(seq 200); do
        grep -q event=listening "$work/said" && break
        kill -0 $running 2>/dev/null || break
        sleep 0.05
    done
    kill -TERM $running 2>/dev/null
    wait $running || { cat "$work/said"; return 1; }
    grep -qF -- "$text" "$work/said" || { echo "it does not say: $text"; cat "$work/said"; return 1; }
}

certificate() { # NAME DAYS
    openssl ecparam -name prime256v1 -genkey -noout -out "$op/$1.key" 2>/dev/null
    openssl req -new -key "$op/$1.key" -subj /CN=mistakes.example -out "$op/$1.csr" 2>/dev/null
    openssl x509 -req -in "$op/$1.csr" -signkey "$op/$1.key" -set_serial 1 -days "$2" -out "$op/$1.pem" 2>/dev/null
}

try_configuration() {
    configure unknown "$plain" 'registration: {opne: true}' 'limits: {connections: -4}'
    expect "an unknown setting is named with a guess" refused unknown "registration.opne: there is no such setting; did you mean registration.open?"
    expect "a number out of range is named with the range" refused unknown "limits.connections: the value is out of range (0 .. 1000000"
    server_name='"https://mistakes.example/"' configure name "$plain"
    expect "a URL is no server name" refused name "server_name: this is no server name"
    printf 'listen: []\n' >"$op/none.yaml"
    expect "a missing server name" refused none "server_name: this setting is required"
    printf 'a: b\n  c: [\n' >"$op/yaml.yaml"
    expect "what is not YAML" refused yaml "yaml.yaml:2: this is not YAML"
    expect "a configuration that is not there" refused absent "absent.yaml: the file cannot be opened: No such file"
    configure registration "$plain" "app_service_config_files: [$op/nobody.yaml]"
    expect "a registration that is not there" refused registration "nobody.yaml: the file cannot be opened: No such file"
    expect "a wrong option is named" prints "myelin: what is --bogus?" "$build/myelin" --bogus
    expect "a wrong command is named" prints "there is no command users foo" "$build/myelinctl" users foo
    expect "myelinctl names the configuration that it does not find" \
        prints "nothing.yaml: the file cannot be opened" "$build/myelinctl" --config "$op/nothing.yaml" users list
}

try_certificates() {
    certificate one 90
    certificate two 90
    certificate soon 3
    certificate old 0
    configure mixed "$secure" "tls: {certificate: $op/one.pem, key: $op/two.key}"
    expect "a key of another certificate" refused mixed "two.key: this is not the key of the certificate $op/one.pem"
    expect "--check-config sees it too" prints "two.key: this is not the key" "$build/myelin" --check-config --config "$op/mixed.yaml"
    expect "and exits with 1" exits_with 1 "$build/myelin" --check-config --config "$op/mixed.yaml"
    configure swapped "$secure" "tls: {certificate: $op/one.key, key: $op/one.pem}"
    expect "a certificate file without one" refused swapped "one.key: the file holds no certificate"
    configure keyless "$secure" "tls: {certificate: $op/one.pem, key: $op/one.csr}"
    expect "a key file without one" refused keyless "one.csr: the file holds no private key"
    configure lost "$secure" "tls: {certificate: $op/lost.pem, key: $op/one.key}"
    expect "a certificate that is not there" refused lost "lost.pem: the file cannot be opened: No such file"
    configure half "$secure" "tls: {certificate: $op/one.pem}"
    expect "a certificate without a key" refused half "set tls.certificate and tls.key together"
    configure fine "$secure" "tls: {certificate: $op/one.pem, key: $op/one.key}"
    expect "files that belong together" serves_with fine
    configure soon "$secure" "tls: {certificate: $op/soon.pem, key: $op/soon.key}"
    expect "a certificate that expires soon" serves_with soon "the certificate expires on"
    configure expired "$secure" "tls: {certificate: $op/old.pem, key: $op/old.key}"
    expect "a certificate that has expired" serves_with expired "the certificate expired on"
}

try_folders() {
    data_dir=first configure first "$plain"
    expect "a server of this name" serves_with first
    data_dir=first server_name=other.example configure other "$plain"
    expect "the data of another server" refused other "the data are those of the server mistakes.example"
    expect "myelinctl refuses them too" prints "the data are those of the server mistakes.example" \
        "$build/myelinctl" --config "$op/other.yaml" users list
    data_dir=deep/er/still configure deep "$plain"
    expect "a folder without its parents" refused deep "data_dir $op/deep/er/still cannot be made: No such file"
    touch "$op/afile"
    data_dir=afile configure afile "$plain"
    expect "a file in place of the folder" refused afile "the data folder cannot be made"
    mkdir -p "$op/foreign/store/x"
    data_dir=foreign configure foreign "$plain"
    expect "a folder with other files" refused foreign "holds other files and no store"
    rm -f "$op/first/store/db/CURRENT"
    expect "a database that lacks a file" refused first "the database cannot be opened"
    cp -r "$op/data" "$op/ours" && printf 'garbage\n' >"$op/ours/signing.key"
    data_dir=ours configure key "$plain"
    expect "a broken signing key" refused key "the signing key file"
}

try_machine() {
    configure plain "$plain"
    expect "few open files" refused plain "the limit on open files is 40" bash -c 'ulimit -n 40; exec "$@"' --
    python3 -c 'import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(60)' >"$op/port" &
    local holder=$!
    while [ ! -s "$op/port" ]; do sleep 0.05; done
    configure taken "listen: [{host: 127.0.0.1, port: $(cat "$op/port")}]"
    expect "a port in use" refused taken "cannot listen on 127.0.0.1 port $(cat "$op/port"): Address already in use"
    kill $holder
    configure address 'listen: [{host: 203.0.113.9, port: 0}]'
    expect "an address of another machine" refused address "cannot listen on 203.0.113.9"
    [ "$(id -u)" = 0 ] || return
    chmod 711 "$work"
    chmod 755 "$op" && mkdir -p -m 755 "$op/roots"
    data_dir=roots configure roots "$plain"
    expect "a folder without permission" refused roots "the data folder cannot be made: Permission denied" setpriv --reuid=65534 --clear-groups
    chmod 600 "$op/plain.yaml"
    expect "a configuration without permission" refused plain "plain.yaml: the file cannot be opened: Permission denied" setpriv --reuid=65534 --clear-groups
    mkdir "$op/full"
    if mount -t tmpfs -o size=512k none "$op/full" 2>/dev/null; then
        dd if=/dev/zero of="$op/full/rest" bs=1k count=1024 2>/dev/null
        data_dir=full/data configure full "$plain"
        expect "a full disk" refused full "No space left on device"
        umount "$op/full"
    fi
}

try_configuration
try_certificates
try_folders
try_machine
