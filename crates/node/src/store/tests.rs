//! The node's database on disks that lose power, fill up and fail, and as earlier programs left it.

mod bit_flips;
mod call;
mod disk_faults;
mod power_loss;
mod trial;
mod upgrade;
