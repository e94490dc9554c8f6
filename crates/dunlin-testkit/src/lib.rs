//! A strict model broker, a wire that cuts, and flash that loses power: what dunlin's tests stand on.
