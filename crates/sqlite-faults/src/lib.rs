//! For tests: a disk under SQLite that loses power, fills up, fails and lies.
//!
//! [`Disk::watch`] puts a file system of its own under every SQLite connection of the process (a "VFS", the default from
//! then on), so that the program under test needs no change. It acts on the watched folders alone and passes everything
//! else through. In a watched folder it keeps apart what was synced from what was only written, as the system's cache
//! does:
//!
//! - [`Disk::cut_power_at`] freezes the folder at one operation, in the middle of a commit or where it falls;
//!   [`Disk::power_loss`] then leaves in another folder what a disk may hold after that: all that was synced, and of the
//!   rest any part, torn and out of order.
//! - [`Disk::fail`] makes the n-th operation fail, as a full or a broken disk does.
//! - [`Disk::lie_about_syncs`] makes a disk that says "synced" and is not: a harness must notice that, or it notices nothing.
//! - [`flip_bit`] changes one bit of a file at rest, and [`lose_page`] makes one page of it unreadable.
//!
//! [`fixtures`] are databases of older schemas, which the program must take over. [`Campaign`] runs a test for many seeds.
//!
//! Nothing is synced for real, so that a loss takes milliseconds. Files that are not opened by SQLite (locks, and the
//! log's index, which is memory) are not carried over a loss.

mod campaign;
mod content;
mod directory;
mod disk;
mod effects;
mod fixture;
mod flip;
mod folder;
mod loss;
mod lost_page;
mod plan;
mod site;
mod turns;
mod vfs;

pub use campaign::{Campaign, Tally};
pub use disk::Disk;
pub use effects::possible_effects;
pub use fixture::{Fixture, fixtures};
pub use flip::flip_bit;
pub use loss::Loss;
pub use lost_page::lose_page;
pub use plan::{Fault, Lasts, Lie, Operation, Trouble};
pub use site::Site;
pub use turns::fail_in_turn;
