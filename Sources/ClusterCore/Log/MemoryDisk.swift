import Base

/// A disk for tests and the simulator that behaves as badly as a real one may. It keeps apart what programs see and what
/// would survive a power cut: writes until `sync`, names until `syncDirectory`. `crash` returns a disk with what survived.
///
/// Used by one thread at a time, hence `@unchecked Sendable`.
public final class MemoryDisk: Disk, @unchecked Sendable {
    /// The kinds of call, to aim faults at.
    public enum Operation: UInt8, Sendable, CaseIterable {
        case list, look, makeDirectory, open, rename, remove, syncDirectory, read, write, sync, truncate, preallocate
        /// The atomic commit of a store that lives on this disk; made by its owner with `call`.
        case commit
    }

    /// Makes one call fail.
    public struct Fault: Sendable {
        /// nil: any call.
        public var operation: Operation?
        /// Calls of this kind that still succeed.
        public var after: Int
        /// errno
        public var code: Int32
        /// Fails every later call too.
        public var staysOn: Bool
        /// The power goes off: the call has no effect at all, and what was not synced stays for `crash` to decide about.
        public var isPowerCut = false
        public init(_ operation: Operation?, after: Int = 0, code: Int32 = MemoryDisk.ioError, staysOn: Bool = false) {
            self.operation = operation
            self.after = after
            self.code = code
            self.staysOn = staysOn
        }
        /// From the call after `calls` more on nothing reaches the disk.
        public static func powerCut(after calls: Int) -> Fault {
            var fault = Fault(nil, after: calls, staysOn: true)
            fault.isPowerCut = true
            return fault
        }
    }

    public static let ioError: Int32 = 5
    public static let noSpace: Int32 = 28
    static let notFound: Int32 = 2
    static let exists: Int32 = 17
    static let notDirectory: Int32 = 20
    static let sectorSize = 512

    /// Faults still to come; one is taken out when it strikes, unless it stays on.
    public var faults: [Fault] = []
    /// Calls so far, failed ones included.
    public private(set) var calls = 0
    public private(set) var syncs = 0
    /// A power cut has struck.
    public private(set) var isOff = false
    /// Told of every call before it has any effect: the moment at which crash enumeration looks at what would survive. Must not touch this disk.
    public var beforeCall: ((Operation, _ path: String) -> Void)?
    /// All files together may grow to this many bytes; nil is endless.
    public var capacityBytes: Int?

    let root: Directory

    public init() { root = Directory() }
    private init(root: Directory, _ capacityBytes: Int?) {
        self.root = root
        self.capacityBytes = capacityBytes
    }

    /// A directory: names now, names after a power cut, and the changes between them.
    final class Directory {
        var names: [String: Node] = [:]
        var durable: [String: Node] = [:]
        var pending: [Change] = []
        /// One atomic change of names.
        struct Change {
            var set: (name: String, node: Node)?
            var unset: String?
        }
        func change(set: (name: String, node: Node)? = nil, unset: String? = nil) {
            Self.apply(Change(set: set, unset: unset), to: &names)
            pending.append(Change(set: set, unset: unset))
        }
        static func apply(_ change: Change, to names: inout [String: Node]) {
            if let name = change.unset { names[name] = nil }
            if let set = change.set { names[set.name] = set.node }
        }
    }

    enum Node {
        case file(Content)
        case directory(Directory)
    }

    /// A file's bytes: as read now, and as they are on the medium.
    final class Content {
        var bytes: [UInt8] = []
        var durable: [UInt8] = []
        var pending: [Update] = []
        enum Update {
            case write(offset: Int, bytes: [UInt8])
            case resize(Int)
        }
        func apply(_ update: Update) {
            Self.apply(update, to: &bytes)
            pending.append(update)
        }
        static func apply(_ update: Update, to image: inout [UInt8]) {
            switch update {
            case .write(let offset, let new):
                grow(&image, to: offset + new.count)
                image.withUnsafeMutableBytes { $0[offset..<offset + new.count].copyBytes(from: new) }
            case .resize(let size):
                if size < image.count { image.removeLast(image.count - size) } else { grow(&image, to: size) }
            }
        }
        static func grow(_ image: inout [UInt8], to size: Int) {
            if size > image.count { image.append(contentsOf: repeatElement(0, count: size - image.count)) }
        }
        /// Brings what is pending to the medium, whole sectors as they are in memory.
        func sync() {
            for update in pending {
                switch update {
                case .resize: Self.apply(update, to: &durable)
                case .write(let offset, let new):
                    Self.grow(&durable, to: min(bytes.count, offset + new.count))
                    copySectors(offset..<offset + new.count)
                }
            }
            pending.removeAll()
        }
        private func copySectors(_ range: Range<Int>) {
            let from = range.lowerBound / sectorSize * sectorSize
            let to = min((range.upperBound + sectorSize - 1) / sectorSize * sectorSize, min(bytes.count, durable.count))
            guard from < to else { return }
            durable.withUnsafeMutableBytes { target in
                bytes.withUnsafeBytes { target[from..<to].copyBytes(from: $0[from..<to]) }
            }
        }
    }

    // MARK: Disk

    public func list(_ directory: String) throws(DiskError) -> [String] {
        try count(.list, directory)
        return try self.directory(directory, "list").names.keys.sorted()
    }

    public func exists(_ path: String) throws(DiskError) -> Bool {
        try count(.look, path)
        return node(path) != nil
    }

    public func makeDirectory(_ path: String) throws(DiskError) {
        try count(.makeDirectory, path)
        var directory = root
        for part in Self.parts(path) {
            switch directory.names[part] {
            case .directory(let next): directory = next
            case .file: throw Self.error("create directory", path, Self.notDirectory)
            case nil:
                let next = Directory()
                directory.change(set: (part, .directory(next)))
                directory = next
            }
        }
    }

    public func open(_ path: String, _ mode: OpenMode) throws(DiskError) -> any DiskFile {
        try count(.open, path)
        let (parent, name) = try parent(of: path, "open")
        switch parent.names[name] {
        case .directory: throw Self.error("open", path, 21)
        case .file(let content):
            if case .new = mode { throw Self.error("open", path, Self.exists) }
            return MemoryFile(self, content, path)
        case nil:
            if case .existing = mode { throw Self.error("open", path, Self.notFound) }
            let content = Content()
            parent.change(set: (name, .file(content)))
            return MemoryFile(self, content, path)
        }
    }

    /// Within one directory only.
    public func rename(_ from: String, to: String) throws(DiskError) {
        try count(.rename, from)
        let (parent, name) = try parent(of: from, "rename")
        let (target, newName) = try self.parent(of: to, "rename")
        precondition(parent === target, "rename across directories: \(from) to \(to)")
        guard let node = parent.names[name] else { throw Self.error("rename", from, Self.notFound) }
        parent.change(set: (newName, node), unset: name)
    }

    public func remove(_ path: String) throws(DiskError) {
        try count(.remove, path)
        let (parent, name) = try parent(of: path, "remove")
        guard let node = parent.names[name] else { throw Self.error("remove", path, Self.notFound) }
        if case .directory(let directory) = node, !directory.names.isEmpty { throw Self.error("remove", path, 39) }
        parent.change(unset: name)
    }

    public func syncDirectory(_ path: String) throws(DiskError) {
        let directory = try self.directory(path, "sync directory")
        // Unlike pages, names live in the journal: a failed sync leaves them pending.
        try count(.syncDirectory, path)
        for change in directory.pending { Directory.apply(change, to: &directory.durable) }
        directory.pending.removeAll()
        syncs += 1
    }

    // MARK: Faults

    /// A call of something else that shares this disk and its faults: counted like any other, and fails when a fault is due.
    public func call(_ operation: Operation, _ path: String) throws(DiskError) { try count(operation, path) }

    /// Counts a call and strikes if a fault is due.
    func count(_ operation: Operation, _ path: String) throws(DiskError) {
        beforeCall?(operation, path)
        calls += 1
        for i in faults.indices where faults[i].operation == nil || faults[i].operation == operation {
            if faults[i].after > 0 {
                faults[i].after -= 1
                continue
            }
            let code = faults[i].code
            if faults[i].isPowerCut { isOff = true }
            if !faults[i].staysOn { faults.remove(at: i) }
            throw Self.error("\(operation)", path, code)
        }
    }

    func checkRoom(for more: Int, _ path: String) throws(DiskError) {
        guard more > 0, let capacityBytes else { return }
        if Self.bytesUsed(root) + more > capacityBytes { throw Self.error("write", path, Self.noSpace) }
    }

    /// What all files take together.
    public var usedBytes: Int { Self.bytesUsed(root) }

    private static func bytesUsed(_ directory: Directory) -> Int {
        var sum = 0
        for name in directory.names.keys.sorted() {
            switch directory.names[name]! {
            case .file(let content): sum += content.bytes.count
            case .directory(let inner): sum += bytesUsed(inner)
            }
        }
        return sum
    }

    static func error(_ operation: String, _ path: String, _ code: Int32) -> DiskError {
        let message = switch code {
        case notFound: "No such file or directory"
        case ioError: "Input/output error"
        case exists: "File exists"
        case notDirectory: "Not a directory"
        case noSpace: "No space left on device"
        default: "error \(code)"
        }
        return DiskError(operation: operation, path: path, code: code, message: message)
    }

    func noteSync() { syncs += 1 }

    /// The process died and the machine did not: what it had written is still there, synced or not.
    public func restorePower() {
        faults.removeAll()
        isOff = false
    }

    // MARK: Crash

    /// What survives a power cut.
    public enum Survival: Sendable {
        /// Only what was synced.
        case syncedOnly
        /// Everything, as after the death of the process alone.
        case everything
        /// Of what was not synced each sector, size and name may or may not have made it, each for itself.
        case chosen
    }

    /// The disk after a power cut; this one is left as it is. Faults are not carried over.
    public func crash(_ survival: Survival = .chosen, using generator: inout SeededGenerator) -> MemoryDisk {
        switch survival {
        case .syncedOnly: return crash { _ in false }
        case .everything: return crash { _ in true }
        case .chosen:
            // How likely something survives differs from crash to crash: nearly all and nearly nothing are the interesting ones.
            let odds: UInt64 = [1 << 28, 1 << 30, 1 << 31, 3 << 30, 15 << 28][Int(generator.next() % 5)]
            return crash { _ in generator.next() >> 32 < odds }
        }
    }

    /// The disk after a power cut that kept exactly those pending parts of which `isKept` says so. It is asked once for each, in the order of
    /// their numbers: 0 ..< `pendingParts`.
    public func crash(keeping isKept: (Int) -> Bool) -> MemoryDisk {
        var next = 0
        var nodes = Nodes()
        nodes.survive(root) {
            defer { next += 1 }
            return isKept(next)
        }
        return MemoryDisk(root: nodes.directory(root), capacityBytes)
    }

    /// How many things a power cut may keep or lose, each for itself: sectors, sizes and names that were not synced.
    public var pendingParts: Int {
        var count = 0
        var nodes = Nodes()
        nodes.survive(root) {
            count += 1
            return false
        }
        return count
    }

    /// An independent copy with nothing pending: what a program that reads the medium now would copy.
    public func copy() -> MemoryDisk { crash { _ in true } }

    /// The same disk once more, with what is pending still pending: the power stays on, and the two go separate ways from here.
    public func fork() -> MemoryDisk {
        var nodes = Nodes()
        return MemoryDisk(root: nodes.fork(root), capacityBytes)
    }

    /// Maps the nodes of one disk to those of another. One file under two names stays one file.
    private struct Nodes {
        var files: [ObjectIdentifier: Content] = [:]
        var directories: [ObjectIdentifier: Directory] = [:]

        func directory(_ old: Directory) -> Directory { directories[ObjectIdentifier(old)]! }

        private func mapped(_ node: Node) -> Node {
            switch node {
            case .file(let content): .file(files[ObjectIdentifier(content)]!)
            case .directory(let inner): .directory(directory(inner))
            }
        }

        private func isKnown(_ node: Node) -> Bool {
            switch node {
            case .file(let content): files[ObjectIdentifier(content)] != nil
            case .directory(let inner): directories[ObjectIdentifier(inner)] != nil
            }
        }

        /// Everything that any name leads to, or led to before the changes that are pending, in a fixed order.
        private static func reachable(from directory: Directory) -> [Node] {
            directory.durable.keys.sorted().map { directory.durable[$0]! } + directory.pending.compactMap { $0.set?.node }
        }

        mutating func survive(_ old: Directory, _ isKept: () -> Bool) {
            let new = Directory()
            directories[ObjectIdentifier(old)] = new
            var names = old.durable
            for change in old.pending where isKept() { Directory.apply(change, to: &names) }
            for node in Self.reachable(from: old) where !isKnown(node) {
                switch node {
                case .file(let content): files[ObjectIdentifier(content)] = Self.survivor(content, isKept)
                case .directory(let inner): survive(inner, isKept)
                }
            }
            new.names = names.mapValues(mapped)
            new.durable = new.names
        }

        private static func survivor(_ content: Content, _ isKept: () -> Bool) -> Content {
            let result = Content()
            // Replayed in order; after each update every touched sector may go to the medium as it is then.
            var image = content.durable
            var memory = content.durable
            for update in content.pending {
                Content.apply(update, to: &memory)
                switch update {
                case .resize:
                    if isKept() { Content.apply(update, to: &image) }
                case .write(let offset, let new):
                    var sector = offset / sectorSize * sectorSize
                    while sector < offset + new.count {
                        let end = min(sector + sectorSize, memory.count)
                        if isKept() {
                            Content.grow(&image, to: end)
                            image.withUnsafeMutableBytes { target in
                                memory.withUnsafeBytes { target[sector..<end].copyBytes(from: $0[sector..<end]) }
                            }
                        }
                        sector += sectorSize
                    }
                }
            }
            result.bytes = image
            result.durable = image
            return result
        }

        mutating func fork(_ old: Directory) -> Directory {
            if let known = directories[ObjectIdentifier(old)] { return known }
            let new = Directory()
            directories[ObjectIdentifier(old)] = new
            new.names = old.names.mapValues { fork($0) }
            new.durable = old.durable.mapValues { fork($0) }
            new.pending = old.pending.map { change in
                Directory.Change(set: change.set.map { ($0.name, fork($0.node)) }, unset: change.unset)
            }
            return new
        }

        private mutating func fork(_ node: Node) -> Node {
            switch node {
            case .directory(let inner): return .directory(fork(inner))
            case .file(let old):
                if let known = files[ObjectIdentifier(old)] { return .file(known) }
                let new = Content()
                new.bytes = old.bytes
                new.durable = old.durable
                new.pending = old.pending
                files[ObjectIdentifier(old)] = new
                return .file(new)
            }
        }
    }

    // MARK: For tests

    /// The bytes of a file as a program sees them; nil if there is none.
    public func bytes(of path: String) -> [UInt8]? {
        guard case .file(let content)? = node(path) else { return nil }
        return content.bytes
    }

    /// Replaces a file's bytes on the medium: rot, or a file put there by hand.
    public func setBytes(of path: String, _ bytes: [UInt8]) {
        let parts = Self.parts(path)
        precondition(!parts.isEmpty, "no file name in \(path)")
        var directory = root
        for part in parts.dropLast() {
            if case .directory(let next)? = directory.names[part] {
                directory = next
            } else {
                let next = Directory()
                directory.names[part] = .directory(next)
                directory.durable[part] = .directory(next)
                directory = next
            }
        }
        let content = Content()
        content.bytes = bytes
        content.durable = bytes
        directory.names[parts.last!] = .file(content)
        directory.durable[parts.last!] = .file(content)
    }

    // MARK: Paths

    private static func parts(_ path: String) -> [String] {
        path.split(separator: "/").filter { $0 != "." }.map(String.init)
    }

    private func node(_ path: String) -> Node? {
        var node = Node.directory(root)
        for part in Self.parts(path) {
            guard case .directory(let directory) = node, let next = directory.names[part] else { return nil }
            node = next
        }
        return node
    }

    private func directory(_ path: String, _ operation: String) throws(DiskError) -> Directory {
        switch node(path) {
        case .directory(let directory): return directory
        case .file: throw Self.error(operation, path, Self.notDirectory)
        case nil: throw Self.error(operation, path, Self.notFound)
        }
    }

    private func parent(of path: String, _ operation: String) throws(DiskError) -> (Directory, String) {
        let parts = Self.parts(path)
        guard let name = parts.last else { throw Self.error(operation, path, 21) }
        return (try directory(parts.dropLast().joined(separator: "/"), operation), name)
    }
}

/// An open file of a `MemoryDisk`.
private final class MemoryFile: DiskFile {
    private let disk: MemoryDisk
    private let content: MemoryDisk.Content
    private let path: String
    private var isOpen = true

    init(_ disk: MemoryDisk, _ content: MemoryDisk.Content, _ path: String) {
        self.disk = disk
        self.content = content
        self.path = path
    }

    var size: UInt64 {
        get throws(DiskError) { UInt64(content.bytes.count) }
    }

    func read(at offset: UInt64, count: Int) throws(DiskError) -> [UInt8] {
        try disk.count(.read, path)
        let from = min(Int(offset), content.bytes.count)
        return content.bytes.withUnsafeBytes { [UInt8](UnsafeRawBufferPointer(rebasing: $0[from..<min(from + count, $0.count)])) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DiskError) {
        precondition(isOpen, "write to a closed file \(path)")
        do throws(DiskError) {
            try disk.count(.write, path)
            try disk.checkRoom(for: Int(offset) + bytes.count - content.bytes.count, path)
        } catch {
            // A write that fails may have begun.
            if !disk.isOff { content.apply(.write(offset: Int(offset), bytes: Array(bytes.prefix(bytes.count / 2)))) }
            throw error
        }
        content.apply(.write(offset: Int(offset), bytes: Array(bytes)))
    }

    func sync() throws(DiskError) {
        precondition(isOpen, "sync of a closed file \(path)")
        do throws(DiskError) {
            try disk.count(.sync, path)
        } catch {
            // The kernel marks the pages clean: still read back, never written again, and the next sync reports success.
            if !disk.isOff { content.pending.removeAll() }
            throw error
        }
        content.sync()
        disk.noteSync()
    }

    func truncate(to size: UInt64) throws(DiskError) {
        try disk.count(.truncate, path)
        content.apply(.resize(Int(size)))
    }

    func preallocate(_ size: UInt64) throws(DiskError) {
        try disk.count(.preallocate, path)
        guard content.bytes.count < Int(size) else { return }
        try disk.checkRoom(for: Int(size) - content.bytes.count, path)
        content.apply(.resize(Int(size)))
    }

    func close() { isOpen = false }
}
