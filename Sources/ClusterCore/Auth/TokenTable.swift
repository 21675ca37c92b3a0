import Base

/// What a request says about its sender, before anybody has looked.
public enum Credential: Hashable, Sendable {
    case none
    /// A simple token, as it came.
    case token([UInt8])
    /// A signed token whose signature and time were found right at the edge.
    case claims(user: UserName, revision: UInt64)
    /// The common name of a verified client certificate.
    case commonName(UserName)
    /// A token that cannot be right, whatever the state.
    case invalid
}

/// The simple tokens that this member knows. Every member learns of each, since logins are replicated; how long one lives is each
/// member's own affair, so nothing that is applied depends on this table. In memory only: after a restart people log in again.
///
/// Confined to the replica loop.
public struct TokenTable: Sendable {
    /// Tokens held at once, about 200 bytes each. A login costs tens of milliseconds of hashing, so honest clients do not come near it;
    /// beyond, those that were not used for longest go.
    public static let maxTokens = 1 << 16

    private struct Entry {
        var user: UserName
        var expires: Instant
    }
    private let timeToLive: TimeSpan
    private let maxTokens: Int
    // Looked up, never walked; `queue` has the same tokens in order of arrival.
    private var entries: [[UInt8]: Entry] = [:]
    /// Tokens with the expiry they had when they were queued; some are gone or were renewed since. Live from `head` on.
    private var queue: [(token: [UInt8], expires: Instant)] = []
    private var head = 0

    public init(timeToLive: TimeSpan, maxTokens: Int = TokenTable.maxTokens) {
        precondition(maxTokens > 0, "a table of \(maxTokens) tokens")
        self.timeToLive = timeToLive
        self.maxTokens = maxTokens
    }

    public var count: Int { entries.count }

    /// The token of a login: its random prefix, a dot, and the index of the entry that told every member of it.
    public static func token(prefix: [UInt8], index: LogIndex) -> [UInt8] { prefix + [UInt8(ascii: ".")] + Array(String(index.rawValue).utf8) }

    /// The index of the entry that made the token; nil when it is none. No log is longer than an Int64 counts.
    public static func index(of token: [UInt8]) -> LogIndex? {
        let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[1].isEmpty else { return nil }
        var number: Int64 = 0
        for byte in parts[1] {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            let (shifted, overflow) = number.multipliedReportingOverflow(by: 10)
            let (sum, overflowed) = shifted.addingReportingOverflow(Int64(byte - UInt8(ascii: "0")))
            guard !overflow, !overflowed else { return nil }
            number = sum
        }
        return LogIndex(UInt64(number))
    }

    public mutating func insert(_ token: [UInt8], of user: UserName, at now: Instant) {
        expire(at: now)
        while entries.count >= maxTokens { evict() }
        let expires = now + timeToLive
        entries[token] = Entry(user: user, expires: expires)
        queue.append((token, expires))
    }

    /// Who the token stands for; its time starts anew.
    public mutating func use(_ token: [UInt8], at now: Instant) -> UserName? {
        guard let entry = entries[token] else { return nil }
        guard entry.expires > now else {
            entries[token] = nil
            return nil
        }
        entries[token]!.expires = now + timeToLive
        return entry.user
    }

    /// The user is gone or has another password.
    public mutating func invalidate(_ user: UserName) {
        for (token, _) in queue[head...] where entries[token]?.user == user { entries[token] = nil }
    }

    public mutating func removeAll() {
        entries = [:]
        queue = []
        head = 0
    }

    /// Gives up the memory of what has expired. Cheap when nothing has.
    public mutating func expire(at now: Instant) {
        while head < queue.count, queue[head].expires <= now {
            let (token, _) = next()
            guard let entry = entries[token] else { continue }
            if entry.expires <= now { entries[token] = nil } else { queue.append((token, entry.expires)) }
        }
    }

    /// Whoever was used since it was queued gets a second chance.
    private mutating func evict() {
        while head < queue.count {
            let (token, expires) = next()
            guard let entry = entries[token] else { continue }
            guard entry.expires > expires else {
                entries[token] = nil
                return
            }
            queue.append((token, entry.expires))
        }
    }

    private mutating func next() -> (token: [UInt8], expires: Instant) {
        let first = queue[head]
        head += 1
        if head > 1_024, head * 2 > queue.count {
            queue.removeFirst(head)
            head = 0
        }
        return first
    }
}
