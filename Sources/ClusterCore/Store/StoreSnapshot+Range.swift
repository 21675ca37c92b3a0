import Base

extension StoreSnapshot {
    func evaluateRange(_ request: RangeRequest, reader: any BackendReader) throws(ReadFault) -> RangeResult {
        var writer = ByteWriter()
        let outcome = try appendRange(request, reader: reader, into: &writer)
        var kvs = EncodedKeyValues()
        kvs.bytes = writer.bytes
        kvs.count = outcome.appended
        return RangeResult(revision: revision, kvs: kvs, more: outcome.more, count: outcome.count)
    }

    /// Appends the range's key-values to `writer` as fields of a RangeResponse. On a throw `writer` may have got some.
    func appendRange(
        _ request: RangeRequest, reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ReadFault) -> (count: Int64, more: Bool, appended: Int) {
        let at = request.revision.rawValue <= 0 ? revision : request.revision
        guard at <= revision else { throw .service(.futureRev) }
        guard at >= compactRevision else { throw .service(.compacted) }

        if request.rangeEnd.isEmpty { return try appendSingle(request, at: at.rawValue, reader: reader, into: &writer) }
        let bounds = KeyBounds(request.range)
        if request.countOnly { return (Int64(count(in: bounds, at: at.rawValue)), false, 0) }
        let isNaturalOrder = request.sortTarget == .key && request.sortOrder != .descending
        if isNaturalOrder { return try appendInOrder(request, bounds, at: at.rawValue, reader: reader, into: &writer) }
        if at == revision, let first = try appendFirst(request, bounds, at: at.rawValue, reader: reader, into: &writer) { return first }
        return try appendSorted(request, bounds, at: at.rawValue, reader: reader, into: &writer)
    }

    /// Keys alive at `at`.
    private func count(in bounds: KeyBounds, at: Int64) -> Int {
        if at == revision.rawValue { return index.liveCount(in: bounds) }
        var count = 0
        index.forEach(in: bounds) { _, entry in
            if entry.pointee.visible(at: at) != nil { count += 1 }
            return true
        }
        return count
    }

    private func appendSingle(
        _ request: RangeRequest, at: Int64, reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ReadFault) -> (count: Int64, more: Bool, appended: Int) {
        guard let entry = index.find(request.key), let change = entry.visible(at: at) else { return (0, false, 0) }
        if request.countOnly { return (1, false, 0) }
        // withUnsafeBytes does not carry a typed error through.
        var fault: ReadFault?
        let appended = request.key.withUnsafeBytes { key in
            do throws(ReadFault) {
                return try withUnsafePointer(to: entry) { entry throws(ReadFault) in
                    try append(request, key: key, entry, change, reader: reader, into: &writer)
                }
            } catch {
                fault = error
                return false
            }
        }
        if let fault { throw fault }
        return (1, false, appended ? 1 : 0)
    }

    /// Ascending keys: each value goes straight to the answer and the walk ends as soon as the answer is known.
    private func appendInOrder(
        _ request: RangeRequest, _ bounds: KeyBounds, at: Int64, reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ReadFault) -> (count: Int64, more: Bool, appended: Int) {
        let limit = request.fetchLimit ?? .max
        let isCurrent = at == revision.rawValue
        var count = 0
        var appended = 0
        var more = false
        var fault: ReadFault?
        index.forEach(in: bounds) { key, entry in
            guard let change = entry.pointee.visible(at: at) else { return true }
            count += 1
            if more { return true }
            do throws(ReadFault) {
                if appended < limit {
                    if try append(request, key: key, entry, change, reader: reader, into: &writer) { appended += 1 }
                } else {
                    more = try passesFilters(request, entry, change, reader: reader)
                }
            } catch {
                fault = error
                return false
            }
            // At the current revision the tree knows the count; at an older one the walk has to go on for it.
            return !(more && isCurrent)
        }
        if let fault { throw fault }
        if isCurrent && more { count = index.liveCount(in: bounds) }
        return (Int64(count), more, appended)
    }

    /// The first key of an order that the index knows, at the current revision: one walk and one value, where sorting reads them all. It is what
    /// whoever waits for a lock or a leadership asks, of queues as long as there are such. nil: not such a request.
    private func appendFirst(
        _ request: RangeRequest, _ bounds: KeyBounds, at: Int64, reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ReadFault) -> (count: Int64, more: Bool, appended: Int)? {
        // Without an order or a filter etcd's early cut decides, see below.
        guard request.limit == 1, request.sortOrder != .none || request.hasFilter else { return nil }
        let number: (KeyEntry) -> Int64
        switch request.sortTarget {
        case .version: number = { $0.version }
        case .createRevision: number = { $0.createRevision }
        case .modRevision: number = { $0.latestMain }
        default: return nil
        }
        let isDescending = request.sortOrder == .descending
        var best: (number: Int64, change: StoredChange)?
        var passed = 0
        var fault: ReadFault?
        var isNewest = true
        index.forEach(in: bounds) { _, entry in
            guard let change = entry.pointee.visible(at: at) else { return true }
            guard change == entry.pointee.latest else {
                isNewest = false
                return false
            }
            do throws(ReadFault) {
                if request.hasFilter, try !passesFilters(request, entry, change, reader: reader) { return true }
            } catch {
                fault = error
                return false
            }
            passed += 1
            let own = number(entry.pointee)
            // Of equals the first key in key order, whichever the direction.
            if best.map({ isDescending ? own > $0.number : own < $0.number }) ?? true { best = (own, change) }
            return true
        }
        if let fault { throw fault }
        guard isNewest else { return nil }
        if let best {
            let view = try withValue(best.change, reader) { raw in
                let view = KeyValueView(raw)
                if let view { writer.appendKeyValue(raw, withoutValue: request.keysOnly ? view : nil) }
                return view
            }
            _ = try view.orCorrupt(best.change)
        }
        return (Int64(index.liveCount(in: bounds)), passed > 1, best == nil ? 0 : 1)
    }

    /// Any other order: gather, sort, cut.
    ///
    /// etcd's quirk: without an explicit order and without filters only the first limit + 1 keys in key order are
    /// gathered, and the implied ascending order sorts just those. (§4.1)
    private func appendSorted(
        _ request: RangeRequest, _ bounds: KeyBounds, at: Int64, reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ReadFault) -> (count: Int64, more: Bool, appended: Int) {
        struct Item {
            var from: Int
            var view: KeyValueView
            var end: Int
        }
        let limit = request.fetchLimit
        let isEarlyCut = request.sortOrder == .none && !request.hasFilter
        let gatherLimit = isEarlyCut ? limit.map { $0 + 1 } ?? .max : .max
        let isCurrent = at == revision.rawValue
        var count = 0
        var gathered = ByteWriter()
        var items: [Item] = []
        var fault: ReadFault?
        index.forEach(in: bounds) { _, entry in
            guard let change = entry.pointee.visible(at: at) else { return true }
            count += 1
            if items.count >= gatherLimit { return !isCurrent }
            do throws(ReadFault) {
                if request.hasFilter, try !passesFilters(request, entry, change, reader: reader) { return true }
                let from = gathered.bytes.count
                let view = try withValue(change, reader) { raw in
                    gathered.write(raw)
                    return KeyValueView(raw)
                }
                items.append(Item(from: from, view: try view.orCorrupt(change), end: gathered.bytes.count))
            } catch {
                fault = error
                return false
            }
            return true
        }
        if let fault { throw fault }
        if isCurrent { count = index.liveCount(in: bounds) }

        let all = gathered.bytes
        var order = Array(items.indices)
        all.withUnsafeBytes { raw in
            func bytes(_ item: Item) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: raw[item.from..<item.end]) }
            func compare(_ a: Item, _ b: Item) -> Int {
                func numbers(_ x: Int64, _ y: Int64) -> Int { x == y ? 0 : x < y ? -1 : 1 }
                return switch request.sortTarget {
                case .version: numbers(a.view.version, b.view.version)
                case .createRevision: numbers(a.view.createRevision, b.view.createRevision)
                case .modRevision: numbers(a.view.modRevision, b.view.modRevision)
                case .value: compareBytes(a.view.value(in: bytes(a)), b.view.value(in: bytes(b)))
                default: compareBytes(a.view.key(in: bytes(a)), b.view.key(in: bytes(b)))
                }
            }
            // Ties keep key order in both directions, as etcd shows for small sets.
            let isDescending = request.sortOrder == .descending
            order.sort { x, y in
                let difference = compare(items[x], items[y])
                if difference != 0 { return isDescending ? difference > 0 : difference < 0 }
                return x < y
            }
            for at in order.prefix(limit ?? .max) {
                let item = items[at]
                writer.appendKeyValue(bytes(item), withoutValue: request.keysOnly ? item.view : nil)
            }
        }
        let appended = min(items.count, limit ?? .max)
        return (Int64(count), items.count > appended, appended)
    }

    /// Appends one key-value unless a filter drops it. Returns whether it was appended.
    private func append(
        _ request: RangeRequest, key: UnsafeRawBufferPointer, _ entry: UnsafePointer<KeyEntry>, _ change: StoredChange,
        reader: any BackendReader, into writer: inout ByteWriter
    ) throws(ReadFault) -> Bool {
        if request.hasFilter, try !passesFilters(request, entry, change, reader: reader) { return false }
        if request.keysOnly {
            if change == entry.pointee.latest {
                // The index knows everything but the value.
                writer.appendKeyValueWithoutValue(key: key, entry.pointee)
                return true
            }
            let view = try withValue(change, reader) { raw in
                let view = KeyValueView(raw)
                if let view { writer.appendKeyValue(raw, withoutValue: view) }
                return view
            }
            _ = try view.orCorrupt(change)
            return true
        }
        try withValue(change, reader) { writer.appendKeyValue($0, withoutValue: nil) }
        return true
    }

    private func passesFilters(
        _ request: RangeRequest, _ entry: UnsafePointer<KeyEntry>, _ change: StoredChange, reader: any BackendReader
    ) throws(ReadFault) -> Bool {
        func isOutside(_ value: Int64, _ low: Revision, _ high: Revision) -> Bool {
            (high != .zero && value > high.rawValue) || (low != .zero && value < low.rawValue)
        }
        if isOutside(change.main, request.minModRevision, request.maxModRevision) { return false }
        guard request.minCreateRevision != .zero || request.maxCreateRevision != .zero else { return true }
        let created: Int64
        if change == entry.pointee.latest {
            created = entry.pointee.createRevision
        } else {
            created = try withValue(change, reader) { KeyValueView($0) }.orCorrupt(change).createRevision
        }
        return !isOutside(created, request.minCreateRevision, request.maxCreateRevision)
    }
}

extension RangeRequest {
    /// nil: no limit.
    fileprivate var fetchLimit: Int? { limit > 0 && limit < Int64.max ? Int(limit) : nil }
}

extension Optional where Wrapped == KeyValueView {
    func orCorrupt(_ change: StoredChange) throws(ReadFault) -> KeyValueView {
        guard let self else {
            throw .malformed(change)
        }
        return self
    }
}

extension ByteWriter {
    /// Field 2 of a RangeResponse. `withoutValue`: the fields of `kv` when its value is to be left out.
    mutating func appendKeyValue(_ kv: UnsafeRawBufferPointer, withoutValue view: KeyValueView?) {
        write(EncodedKeyValues.rangeTag)
        guard let view, view.valueFieldEnd > view.valueFieldAt else {
            writeVarint(UInt64(kv.count))
            write(kv)
            return
        }
        writeVarint(UInt64(kv.count - (view.valueFieldEnd - view.valueFieldAt)))
        write(UnsafeRawBufferPointer(rebasing: kv[0..<view.valueFieldAt]))
        write(UnsafeRawBufferPointer(rebasing: kv[view.valueFieldEnd...]))
    }

    /// The same, for the newest version of a key, from the index alone.
    mutating func appendKeyValueWithoutValue(key: UnsafeRawBufferPointer, _ entry: KeyEntry) {
        writeMessage(2) { writer in
            if key.count > 0 { writer.writeEncodedMessage(1, key) }
            writer.writeField(2, entry.createRevision)
            writer.writeField(3, entry.latestMain)
            writer.writeField(4, entry.version)
            writer.writeField(6, entry.lease)
        }
    }
}
