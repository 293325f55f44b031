//! Memory of the fake device. Its addresses are none that a processor can have, so that a host that
//! follows one dies at once, and each access by the device is checked: beyond the end of an
//! allocation, or after it was freed, it is illegal, as on hardware.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Not canonical on any processor.
const BASE: u64 = 1 << 56;
/// Between allocations, where every access is illegal.
const GAP: u64 = 1 << 16;
/// What fresh memory holds; nothing may count on zeros. As f32, f16 or bf16 it is a NaN.
const POISON: u8 = 0xff;
/// Bytes of a unit in which memory is had, so that it is aligned.
const LINE: usize = size_of::<u128>();

#[derive(Default)]
struct Table {
    /// By address: how many bytes, and where they really are.
    device: BTreeMap<u64, (usize, Vec<u128>)>,
    pinned: BTreeMap<u64, (usize, Vec<u128>)>,
    /// What was freed while a stream may still be in it.
    freed: Vec<Vec<u128>>,
    used_bytes: usize,
    next: u64,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

fn table() -> MutexGuard<'static, Option<Table>> {
    let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    table.get_or_insert_with(|| Table {
        next: BASE,
        ..Table::default()
    });
    table
}

fn lines(bytes: usize, value: u8) -> Vec<u128> {
    vec![u128::from_ne_bytes([value; LINE]); bytes.div_ceil(LINE).max(1)]
}

/// A fresh address, or `None` if the device has no so many bytes left.
pub(crate) fn allocate(bytes: usize, capacity: usize) -> Option<u64> {
    let mut table = table();
    let table = table.as_mut()?;
    if bytes > capacity - table.used_bytes {
        return None;
    }
    let address = table.next;
    table.next += (bytes as u64).next_multiple_of(GAP) + GAP;
    table.used_bytes += bytes;
    table.device.insert(address, (bytes, lines(bytes, POISON)));
    Some(address)
}

/// Whether there was such an allocation.
pub(crate) fn free(address: u64) -> bool {
    let mut table = table();
    let Some(table) = table.as_mut() else {
        return false;
    };
    match table.device.remove(&address) {
        Some((bytes, lines)) => {
            table.used_bytes -= bytes;
            table.freed.push(lines);
            true
        }
        None => false,
    }
}

pub(crate) fn used_bytes() -> usize {
    table().as_ref().map_or(0, |table| table.used_bytes)
}

/// Host memory that the device reaches under the same address.
pub(crate) fn allocate_pinned(bytes: usize) -> u64 {
    let mut memory = lines(bytes, POISON);
    let address = memory.as_mut_ptr() as u64;
    if let Some(table) = table().as_mut() {
        table.pinned.insert(address, (bytes, memory));
    }
    address
}

pub(crate) fn free_pinned(address: u64) -> bool {
    let mut table = table();
    let Some(table) = table.as_mut() else {
        return false;
    };
    match table.pinned.remove(&address) {
        Some((_, lines)) => {
            table.freed.push(lines);
            true
        }
        None => false,
    }
}

/// Where so many bytes at a device's address really are; `None` if the access is illegal.
pub(crate) fn reach(address: u64, bytes: usize) -> Option<*mut u8> {
    let mut table = table();
    let table = table.as_mut()?;
    for memory in [&mut table.device, &mut table.pinned] {
        if let Some((base, (length, lines))) = memory.range_mut(..=address).next_back() {
            let offset = usize::try_from(address - base).ok()?;
            if offset.checked_add(bytes)? <= *length {
                return Some(lines.as_mut_ptr().cast::<u8>().wrapping_add(offset));
            }
        }
    }
    None
}
