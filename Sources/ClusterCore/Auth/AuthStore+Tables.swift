import Base

/// The tables that authentication is stored in: etcd's buckets `auth`, `authUsers` and `authRoles`.
public enum AuthTable: Hashable, Sendable {
    case settings
    case users
    case roles
}

/// What a change leaves in the tables.
public enum AuthWrite: Hashable, Sendable {
    case put(AuthTable, key: [UInt8], value: [UInt8])
    case delete(AuthTable, key: [UInt8])
}

extension AuthStore {
    static let enabledKey = Array("authEnabled".utf8)
    static let revisionKey = Array("authRevision".utf8)

    static func encoded(revision: UInt64) -> [UInt8] {
        var writer = ByteWriter(capacity: 8)
        writer.writeBigEndian(revision)
        return writer.bytes
    }

    /// Takes the tables entry by entry, in any order, and makes the state of them. An entry that no version writes is a fault: a state
    /// that lacks it would permit what it should not, or refuse what others permit.
    public struct Loader {
        private var store = AuthStore()
        public init() {}

        public mutating func take(_ table: AuthTable, key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) throws(DecodingFault) {
            var reader = ByteReader(value)
            switch table {
            case .settings:
                // Other settings are a later version's.
                if key.elementsEqual(enabledKey) {
                    guard value.count == 1, value[0] <= 1 else { throw .malformed("authEnabled of \(value.count) bytes") }
                    store.isEnabled = value[0] == 1
                } else if key.elementsEqual(revisionKey) {
                    guard value.count == 8 else { throw .malformed("authRevision of \(value.count) bytes") }
                    // etcd counts from 1; 0 only says that nothing was ever written.
                    store.revision = max(1, try reader.readBigEndian(UInt64.self))
                }
            case .users:
                let user = try AuthUser.decode(&reader)
                guard key.elementsEqual(user.name.bytes) else { throw .malformed("user \(user.name) under another name") }
                store.users[user.name] = Account(user: user, rights: Rights(isRoot: false))
            case .roles:
                let role = try AuthRole.decode(&reader)
                guard key.elementsEqual(role.name.bytes) else { throw .malformed("role \(role.name) under another name") }
                store.roles[role.name] = role
            }
        }

        public func finish() -> AuthStore {
            var store = store
            for name in store.users.keys { store.users[name]!.rights = store.rights(of: store.users[name]!.user) }
            return store
        }
    }
}

/// A small ordered map. Values of it are copied with the state, so it is one array.
struct SortedTable<Name: Comparable & Sendable, Value: Sendable>: Sendable {
    private var entries: [(name: Name, value: Value)] = []

    var keys: [Name] { entries.map(\.name) }

    private func position(_ name: Name) -> (at: Int, found: Bool) {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].name < name { low = middle + 1 } else { high = middle }
        }
        return (low, low < entries.count && entries[low].name == name)
    }

    subscript(name: Name) -> Value? {
        get {
            let (at, found) = position(name)
            return found ? entries[at].value : nil
        }
        set {
            let (at, found) = position(name)
            switch (newValue, found) {
            case (let value?, true): entries[at].value = value
            case (let value?, false): entries.insert((name, value), at: at)
            case (nil, true): entries.remove(at: at)
            case (nil, false): break
            }
        }
    }

    mutating func remove(_ name: Name) { self[name] = nil }
}
