# Bring CXL memory online, in the guest: region SERIAL WINDOW BYTES for each device, in the order of nodes.
# What every step writes is described in the kernel's Documentation/ABI/testing/sysfs-bus-cxl. The step that failed is said on
# standard error, in one line.
set -e
step="no CXL bus"
trap 'status=$?; [ $status = 0 ] || echo "$step" >&2' EXIT
cd /sys/bus/cxl/devices

# Movable: kernel objects and page tables stay in memory that is memory to QEMU too. `daxctl online-memory` does the same.
echo online_movable >/sys/devices/system/memory/auto_online_blocks
# Devices have been found when the boot is over; ports over them are made by a queue of work.
echo 1 >/sys/bus/cxl/flush

region() {
    step="node $1: no device has its number, with a port over it, among: $(echo *)"
    found=
    for port in endpoint*; do
        [ -e "$port/uport/serial" ] && [ $(($(cat "$port/uport/serial"))) = "$1" ] && found=$port
    done
    [ -n "$found" ]
    part=$(echo "$found"/decoder*.0)
    window=decoder0.$2

    step="node $1: its window $window takes no region"
    region=$(cat "$window/create_ram_region")
    echo "$region" >"$window/create_ram_region"
    step="node $1: its device gives no $3 bytes"
    echo ram >"$part/mode"
    echo "$3" >"$part/dpa_size"
    step="node $1: $region over $window does not take the device"
    echo 1 >"$region/interleave_ways"
    echo 256 >"$region/interleave_granularity"
    echo "$3" >"$region/size"
    echo "${part##*/}" >"$region/target0"
    step="node $1: $region cannot be switched on"
    echo 1 >"$region/commit"
    step="node $1: $region has no driver"
    echo "$region" >/sys/bus/cxl/drivers/cxl_region/bind
    step="node $1: $region is there, but its memory is not in use"
    [ -d "/sys/devices/system/node/node$1" ]
}
